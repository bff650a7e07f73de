"""Models around a stack: what turns a task's inputs into a stream and the stream into its outputs."""
