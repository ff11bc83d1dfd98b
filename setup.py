"Read settings.ini, the one place of project metadata, and hand it to setuptools."

from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

root = Path(__file__).parent
ini = ConfigParser(delimiters=["="])
ini.read(root / "settings.ini", encoding="utf-8")
cfg = ini["DEFAULT"]
requirements = {key: cfg[f"{key}_requirements"].split() for key in ("video", "onnx", "scale", "nb", "docs", "dev")}
requirements["dev"] = sum(requirements.values(), [])  # development needs every extra: the tests use them all

setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    author=cfg["author"],
    author_email=cfg["author_email"],
    license="Apache-2.0",
    keywords=cfg["keywords"].split(),
    url=cfg["git_url"],
    long_description=(root / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    python_requires=">=" + cfg["min_python"],
    packages=find_packages(include=[cfg["lib_name"], cfg["lib_name"] + ".*"])
    + [f"scalable_arch.data_manifests{part}" for part in ("", ".datasets", ".printed", ".claims")],
    package_dir={"scalable_arch.data_manifests": "data_manifests"},
    package_data={
        "": ["*.toml", "*.csv", "py.typed"],
        "scalable_arch": ["weights/*.safetensors", "intended_use.md"],
    },
    install_requires=cfg["requirements"].split(),
    extras_require=requirements,
    entry_points={
        "console_scripts": cfg["console_scripts"].split(),
        "nbdev": ["scalable_arch=scalable_arch._modidx:d"],
    },
    classifiers=["Programming Language :: Python :: 3", "Intended Audience :: " + cfg["audience"]],
    zip_safe=False,
)
