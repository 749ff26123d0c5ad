"""Learning together without pooling the rows: clients, servers, what each may see, and what is promised to whom."""
