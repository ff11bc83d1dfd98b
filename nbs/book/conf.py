"Sphinx's settings for the book; `scalable_arch.book.site` adds the folders that it gathers."

from configparser import ConfigParser
from pathlib import Path

ini = ConfigParser(delimiters=["="])
ini.read(Path(__file__).parents[2] / "settings.ini", encoding="utf-8")

project, version = ini["DEFAULT"]["title"], ini["DEFAULT"]["version"]
release, author, copyright = version, ini["DEFAULT"]["author"], ini["DEFAULT"]["copyright"]

extensions = ["myst_nb", "sphinx.ext.mathjax", "sphinx_copybutton"]
exclude_patterns = ["extra", "static"]
nb_execution_mode = "off"  # papermill has run them
nb_output_stderr = "remove"
nb_merge_streams = True
nb_mime_priority_overrides = [("html", "image/svg+xml", 5)]
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
copybutton_selector = "div.cell_input pre, div.highlight-sh pre, div.highlight-python pre, div.highlight-pycon pre"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
mathjax_path = "mathjax/tex-svg-full.js"
mathjax3_config = {"options": {"enableMenu": False}}  # the menu would load more files
suppress_warnings = ["mystnb.mime_priority"]
add_module_names = False
python_maximum_signature_line_length = 100

html_theme = "furo"
html_title = f"{project} {version}"
html_show_sphinx = False
html_copy_source = False
html_show_search_summary = False  # they would be fetched, which a page of a plain folder may not
html_css_files, html_js_files = ["book.css"], ["book.js"]
verdicts = {
    "light": {
        "good": "#11703a",
        "bad": "#b3261e",
        "open": "#8a5a00",
        "none": "#5b6675",
        "good-bg": "#e2f4e8",
        "bad-bg": "#fbe6e4",
        "open-bg": "#fcf0d8",
        "none-bg": "#edf0f4",
    },
    "dark": {
        "good": "#7fd6a0",
        "bad": "#ff9d94",
        "open": "#f0c060",
        "none": "#a0abba",
        "good-bg": "#153524",
        "bad-bg": "#46201d",
        "open-bg": "#3d2f10",
        "none-bg": "#262e39",
    },
}
html_theme_options = {
    "light_css_variables": verdicts["light"],
    "dark_css_variables": verdicts["dark"],
    "navigation_with_keys": True,
}
