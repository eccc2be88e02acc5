"""The only wing that reads and writes protobuf and converts to graphsurgeon's graph and back."""
