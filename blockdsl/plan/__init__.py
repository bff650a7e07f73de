"""What a model costs on many devices: meshes, stages, bytes kept and sent. No torch."""
