"""What `import gemsmith` offers: the work of the commands as functions that return objects. Imports no torch."""
