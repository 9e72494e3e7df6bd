"""One module for each kind of encoder: what is defined here can be chosen by `kind`."""
