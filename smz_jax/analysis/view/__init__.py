"""Looking at macros: the library by compression, and figures from games that the model plays."""
