"""Wire types of ZDS, generated from zds.proto."""
