"""aisec_lab: what attacks on machine learning do, and what each defense buys and costs."""
