"""Settings, devices, console output, random numbers, digests: knows no other room."""
