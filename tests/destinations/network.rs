//! Names, addresses, routes and proxies.
