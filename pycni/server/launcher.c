/* The launcher: the executable that `pycni install` puts into the plugin directory under the name of each plugin.
 *
 * It sends its call to the resident server (environment, stdin, descriptors of its own network namespace and of the
 * container's) and prints the answer. If no server accepts the call, it executes the one-shot script of the same name,
 * which has the same effect and is slower. The messages of a call, those of the server on the right:
 *
 *     header, descriptors, type, environment, stdin   ->
 *                                                     <-   A: accepted, or R: refused
 *                                                     <-   D: done, status, stdout, stderr; or R
 *
 * Until the launcher has read A it may withdraw the call: it shuts its side of the connection down, and then checks once
 * more for A. The server sends A, and then checks for that shutdown before it executes the call; if there is one, it
 * sends R. So at least one side sees the message of the other, and no call is executed twice. After A the launcher never
 * repeats an ADD: an ADD that is executed twice is worse than error 11, "try again later". It repeats all other verbs.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define MAGIC 0x324e4350u /* "PCN2" */
#define STDIN_MAX (16u << 20)
#define ANSWER_MAX (64u << 20)
#define CONNECT_MS 200
#define ACCEPT_MS 10000
#define ANSWER_MS 900000

/* `pycni install` overwrites these values in the compiled file; it finds them by the names in front. */
static volatile char socket_path[256] = "PYCNI-SOCKET=/run/pycni/pycni.sock";
static volatile char oneshot_dir[1024] = "PYCNI-ONESHOT=/usr/libexec/pycni";
extern char **environ;
static char *no_arguments[] = {NULL, NULL}, **arguments = no_arguments; /* of the one-shot script */

static const char *setting(volatile char *text) { return strchr((const char *)text, '=') + 1; }

static const char *variable(const char *name) {
    const char *value = getenv(name);
    return value ? value : "";
}

static void print(int fd, const char *text) {
    size_t left = strlen(text);
    while (left) {
        ssize_t done = write(fd, text, left);
        if (done <= 0) return;
        text += done;
        left -= (size_t)done;
    }
}

/* Read a descriptor to its end. Returns 0 on an error; `data` then has what was read before it. */
static int read_all(int fd, char **data, size_t *length) {
    size_t room = 1 << 16;
    char *buffer = malloc(room);
    *length = 0;
    while (buffer) {
        ssize_t got = read(fd, buffer + *length, room - *length);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0 && errno == EBADF) got = 0; /* a closed stdin counts as empty */
        if (got < 0) break;
        if (got == 0) { *data = buffer; return 1; }
        *length += (size_t)got;
        if (*length == room) buffer = realloc(buffer, room *= 2);
    }
    *data = buffer;
    return 0;
}

/* Replace this process by the one-shot script. `consumed`: stdin was read, and the script must get it again. */
static void oneshot(const char *type, const char *data, size_t length, int consumed) {
    if (consumed) {
        int memory = memfd_create("stdin", 0);
        for (size_t done = 0; memory >= 0 && done < length;) {
            ssize_t wrote = write(memory, data + done, length - done);
            if (wrote <= 0) break;
            done += (size_t)wrote;
        }
        if (memory < 0 || lseek(memory, 0, SEEK_SET) < 0 || dup2(memory, 0) < 0) _exit(1);
        if (memory != 0) close(memory);
    }
    char path[1400];
    const char *directory = getenv("PYCNI_ONESHOT_DIR");
    if (!directory || !*directory) directory = setting(oneshot_dir);
    if (strlen(directory) + strlen(type) + 2 > sizeof path) _exit(1);
    strcat(strcat(strcpy(path, directory), "/"), type);
    arguments[0] = path;
    execv(path, arguments);
    print(1, "{\n    \"cniVersion\": \"1.1.0\",\n    \"code\": 999,\n    \"msg\": \"pycni is not installed completely: cannot start ");
    print(1, path);
    print(1, "\",\n    \"details\": \"run pycni install again\"\n}");
    _exit(1);
}

/* Connect to the server's socket. Returns -1 if there is no server, or it belongs to another user who is not root. */
static int connect_to_server(void) {
    const char *path = getenv("PYCNI_SOCKET");
    if (!path || !*path) path = setting(socket_path);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path) return -1;
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -1;
    /* connect() waits this long while the queue of a busy server is full. */
    struct timeval timeout = {.tv_usec = CONNECT_MS * 1000};
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
    struct ucred peer;
    socklen_t size = sizeof peer;
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0 ||
        getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0 || (peer.uid != 0 && peer.uid != geteuid())) {
        close(fd);
        return -1;
    }
    timeout = (struct timeval){.tv_sec = ACCEPT_MS / 1000};
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
    return fd;
}

static int send_all(int fd, const char *data, size_t length) {
    while (length) {
        ssize_t sent = send(fd, data, length, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) continue;
        if (sent <= 0) return 0;
        data += sent;
        length -= (size_t)sent;
    }
    return 1;
}

/* Receive exactly `length` bytes. Returns 0 after the deadline or at the end of the connection. */
static int receive_all(int fd, char *data, size_t length, int milliseconds) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    int64_t end = now.tv_sec * 1000LL + now.tv_nsec / 1000000 + milliseconds;
    while (length) {
        clock_gettime(CLOCK_MONOTONIC, &now);
        int64_t left = end - (now.tv_sec * 1000LL + now.tv_nsec / 1000000);
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        int ready = left > 0 ? poll(&wait, 1, (int)left) : 0;
        if (ready < 0 && errno == EINTR) continue;
        if (ready <= 0) return 0;
        ssize_t got = recv(fd, data, length, 0);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return 0;
        data += got;
        length -= (size_t)got;
    }
    return 1;
}

/* Send the call with its descriptors: our network namespace, and the container's if CNI_NETNS can be opened. */
static int send_call(int fd, struct iovec parts[4]) {
    int descriptors[2], count = 0;
    descriptors[count] = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    if (descriptors[count] < 0) return 0;
    count++;
    const char *netns = variable("CNI_NETNS");
    if (*netns && (descriptors[count] = open(netns, O_RDONLY | O_CLOEXEC | O_NONBLOCK)) >= 0) count++;
    union { char space[CMSG_SPACE(sizeof descriptors)]; struct cmsghdr aligned; } control = {{0}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 4, .msg_control = &control,
                             .msg_controllen = CMSG_SPACE((size_t)count * sizeof(int))};
    struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN((size_t)count * sizeof(int));
    memcpy(CMSG_DATA(rights), descriptors, (size_t)count * sizeof(int));
    ssize_t sent;
    do sent = sendmsg(fd, &message, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    while (count--) close(descriptors[count]);
    if (sent < 0) return 0;
    for (int i = 0; i < 4; i++) { /* the rest, if sendmsg() has not sent all */
        size_t done = (size_t)sent < parts[i].iov_len ? (size_t)sent : parts[i].iov_len;
        sent -= (ssize_t)done;
        if (!send_all(fd, (char *)parts[i].iov_base + done, parts[i].iov_len - done)) return 0;
    }
    return 1;
}

/* Send the call to the server. Returns 1 if it has accepted it, 0 if it will not execute it. */
static int submit(int fd, const char *type, char *data, size_t length) {
    size_t environment = 0;
    for (char **entry = environ; *entry; entry++) environment += strlen(*entry) + 1;
    char *block = malloc(environment + 1), *end = block;
    if (!block) return 0;
    for (char **entry = environ; *entry; entry++) end = stpcpy(end, *entry) + 1;
    uint32_t header[4] = {MAGIC, (uint32_t)strlen(type), (uint32_t)environment, (uint32_t)length};
    struct iovec parts[4] = {{header, sizeof header}, {(char *)type, strlen(type)}, {block, environment}, {data, length}};
    char reply;
    if (send_call(fd, parts) && receive_all(fd, &reply, 1, ACCEPT_MS)) return reply == 'A';
    /* Too late, or the server has ended: withdraw the call, unless the server accepts it at this moment. */
    shutdown(fd, SHUT_WR);
    return recv(fd, &reply, 1, MSG_DONTWAIT) == 1 && reply == 'A';
}

/* Print the answer and exit with its status. Returns if there is none: 1 if the server has not executed the call. */
static int print_answer(int fd) {
    char reply = 0;
    uint32_t header[3];
    if (!receive_all(fd, &reply, 1, ANSWER_MS) || reply != 'D') return reply == 'R';
    if (!receive_all(fd, (char *)header, sizeof header, ANSWER_MS)) return 0;
    if (header[1] > ANSWER_MAX || header[2] > ANSWER_MAX) return 0;
    size_t length = (size_t)header[1] + header[2];
    char *text = malloc(length + 1);
    if (!text || !receive_all(fd, text, length, ANSWER_MS)) return 0;
    for (size_t done = 0; done < header[2];) {
        ssize_t wrote = write(2, text + header[1] + done, header[2] - done);
        if (wrote <= 0) break;
        done += (size_t)wrote;
    }
    for (size_t done = 0; done < header[1];) {
        ssize_t wrote = write(1, text + done, header[1] - done);
        if (wrote < 0 && errno == EINTR) continue;
        if (wrote <= 0) {
            print(2, "Error writing the answer to stdout: ");
            print(2, strerror(errno));
            print(2, "\n");
            _exit(1);
        }
        done += (size_t)wrote;
    }
    _exit((int)header[0]);
}

int main(int argc, char **argv) {
    const char *name = argc > 0 ? argv[0] : "", *slash = strrchr(name, '/'), *type = slash ? slash + 1 : name;
    const char *command = variable("CNI_COMMAND");
    char *data = "";
    size_t length = 0;
    int consumed = 0;
    if (argc > 0) arguments = argv;
    if (!*command && argc > 1) oneshot(type, data, length, consumed); /* started by hand: `dhcp daemon` */
    if (*command && strcmp(command, "VERSION")) {
        if (!read_all(0, &data, &length)) oneshot(type, data, length, length > 0);
        consumed = 1;
    }
    if (length > STDIN_MAX) oneshot(type, data, length, consumed);
    int fd = connect_to_server();
    if (fd < 0 || !submit(fd, type, data, length)) {
        if (fd >= 0) close(fd);
        oneshot(type, data, length, consumed);
    }
    int not_executed = print_answer(fd);
    close(fd);
    if (not_executed || strcmp(command, "ADD")) oneshot(type, data, length, consumed);
    print(1, "{\n    \"cniVersion\": \"1.1.0\",\n    \"code\": 11,\n    \"msg\": \"the pycni server ended during the call\",\n"
           "    \"details\": \"try again later; DEL removes what the call has created\"\n}");
    return 1;
}
