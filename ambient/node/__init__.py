"""The node agent: enrols pods, installs capture in their netns and hands them to the proxy."""
