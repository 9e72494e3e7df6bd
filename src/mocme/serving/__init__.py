"""HTTP server for trained runs, with a web page for reviewing predictions."""
