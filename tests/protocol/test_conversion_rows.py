"""Result conversions recorded from the Go library, and the intended deviations from them."""

import json
from pathlib import Path
from typing import Any

import pytest

from pycni.protocol import go_json
from pycni.protocol.conversion import VersionedResult

ROWS = json.loads((Path(__file__).parents[1] / "data" / "result_conversions.json").read_text())["rows"]

NO_ADDRESS = "a missing address is rejected; Go prints <nil>, which it cannot parse again"
NULL_ELEMENT = "null as an element of a list is rejected"
EXACT_INTEGER = "integers stay exact"
NO_VERSION = "a result without cniVersion has the version of its configuration"
DEVIATIONS = {
    "RC-noaddr-": NO_ADDRESS,
    "RC-emptyip4-": NO_ADDRESS,
    "RC-nullelem-": NULL_ELEMENT,
    "RC-parse-nullelem-": NULL_ELEMENT,
    "RC-parse-bigint-to-1.0.0": EXACT_INTEGER,
    "RC-create-0.3.0-of-nover-": NO_VERSION,
    "RC-create-0.3.1-of-nover-": NO_VERSION,
    "RC-create-0.4.0-of-nover-": NO_VERSION,
    "RC-create-1.1.0-of-nover-": NO_VERSION,
}


def converted(row: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    document = go_json.loads(row["input_text"])
    if "parser_version" in row:
        parsed = VersionedResult.parse_as(document, row["parser_version"])
    else:
        parsed = VersionedResult.parse(document)
    return parsed.cni_version, parsed.to_document(row["target"])


def deviates(row: dict[str, Any]) -> bool:
    return any(row["id"].startswith(prefix) for prefix in DEVIATIONS)


def parameters(rows: list[dict[str, Any]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("row", rows, ids=lambda row: row["id"])


@parameters([row for row in ROWS if "output" in row["expect"] and not deviates(row)])
def test_converted_result_matches_byte_for_byte(row: dict[str, Any]) -> None:
    expect = row["expect"]
    parsed_version, document = converted(row)
    assert parsed_version == expect["parsed_version"]
    assert document == expect["output"]
    assert go_json.dumps_compact(document) == expect["output_text_compact"]
    assert go_json.dumps_indented(document) == expect["output_text_pretty"]


@parameters([row for row in ROWS if "output" not in row["expect"] and not deviates(row)])
def test_input_that_the_go_library_rejects_is_rejected(row: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        converted(row)


@parameters([row for row in ROWS if row["id"].startswith(("RC-noaddr-", "RC-emptyip4-"))])
def test_missing_address_is_rejected(row: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="invalid CIDR address"):
        converted(row)


@parameters([row for row in ROWS if row["id"].startswith(("RC-nullelem-", "RC-parse-nullelem-"))])
def test_null_in_a_list_is_rejected(row: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\[0\] must be an object, not null"):
        converted(row)


@parameters([row for row in ROWS if row["id"] == "RC-parse-bigint-to-1.0.0"])
def test_integers_stay_exact(row: dict[str, Any]) -> None:
    assert converted(row)[1]["routes"][0]["table"] == 9007199254740993


@parameters([row for row in ROWS if row["id"].startswith("RC-create-") and "-of-nover-" in row["id"] and deviates(row)])
def test_result_without_version_has_the_version_of_its_configuration(row: dict[str, Any]) -> None:
    parsed_version, document = converted(row)
    assert parsed_version == row["parser_version"]
    assert document["ips"] == [{"address": "10.0.0.2/24"}]


def test_every_deviation_refers_to_existing_rows() -> None:
    assert [prefix for prefix in DEVIATIONS if not any(row["id"].startswith(prefix) for row in ROWS)] == []
