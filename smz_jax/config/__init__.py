"""What can be set: settings, presets, files and the command line; no JAX is loaded."""
