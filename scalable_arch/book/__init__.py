"The book: chapters as they were run, the ledger and the reference as a folder of pages. Needs the extra `docs`."
