"""Queue, adapter slots and answer streams that several engines use; imported only by `server.engines`."""
