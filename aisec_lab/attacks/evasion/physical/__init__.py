"""Physical evasion: things that are printed, put into the scene, and photographed."""
