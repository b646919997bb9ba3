"""What every room needs: replay buffers, files, memory and the checks of arguments."""
