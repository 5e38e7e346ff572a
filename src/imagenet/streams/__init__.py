"""Archives that are read from front to back, or member by member, and never unpacked elsewhere: gzip, tar in gzip, zip."""
