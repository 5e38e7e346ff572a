"""From runs' folders to figures, tables, a comparison and one HTML page. No torch."""
