"""Who watches: monitors of an oracle, that see each client's queries and accuse those that look like an attack."""
