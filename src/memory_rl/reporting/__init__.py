"""What people look at: figures and terminal tables, made from recorded runs."""
