"""report.html: how a job went, over all of its runs, as one file that loads nothing.

``data`` is what it shows, ``charts`` the geometry, ``page`` the page (a Jinja template, style and script beside it).
Nothing here reads the output folder or a clock: ``roles.reporting`` does.
"""
