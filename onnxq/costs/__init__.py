"""What ops cost in time, measured: keys, tables, files, estimates and the measuring itself."""
