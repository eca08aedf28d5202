//! What one tries Obtrace with: the demo shop and the load generator. Clients only, they use nothing of the server.
