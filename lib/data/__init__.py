"""Audio files and what training and separation read of them: folders of tracks, decoded tracks, batches, songs."""
