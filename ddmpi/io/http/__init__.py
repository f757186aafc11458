"""libcurl: requests, connections, resolved addresses."""
