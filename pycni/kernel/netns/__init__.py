"""Network namespaces: open handles, sysctls, locks, named and throwaway namespaces."""
