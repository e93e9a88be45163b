"""Captioned image data: the record schema and one file per dataset."""
