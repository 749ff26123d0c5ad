"""Physical evasion: printed patches and stickers, poses of an object, and a camera's view of them."""
