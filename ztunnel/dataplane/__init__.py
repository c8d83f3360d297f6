"""The data-plane process: one thread, one epoll loop."""
