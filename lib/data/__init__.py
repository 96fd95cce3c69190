"""Audio files and what training and separation read of them: musdb folders, decoded tracks, batches, songs."""
