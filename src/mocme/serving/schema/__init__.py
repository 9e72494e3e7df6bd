"""What goes in over HTTP (`requests`) and out (`answers`, those of `mocme.prediction`)."""
