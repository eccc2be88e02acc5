"""The passes, one per file; the engine reaches them through the registry only."""
