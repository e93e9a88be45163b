"""The harness: runs grids of cells, keeps records, makes tables and plots."""
