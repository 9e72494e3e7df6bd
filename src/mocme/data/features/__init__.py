"""Sources of modalities: tables of settings become features of entities."""
