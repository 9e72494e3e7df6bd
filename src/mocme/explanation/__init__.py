"""Why a prediction was made: evidence by expert, modality, training fact and path."""
