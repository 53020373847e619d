"""Everything comes from settings.ini; this file only hands it to setuptools."""

from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
config = ConfigParser(delimiters=["="])
config.read(here / "settings.ini", encoding="utf-8")
meta = config["metadata"]
lines = lambda text: [line for line in text.split("\n") if line]

setup(
    name=meta["name"],
    version=meta["version"],
    description=meta["description"],
    long_description=(here / "README.md").read_text(encoding="utf-8") if (here / "README.md").exists() else "",
    project_urls={"Repository": meta["repository"]},
    long_description_content_type="text/markdown",
    license_expression=meta["license"],
    license_files=["LICENSE", "cantolyric/assets/LICENSE-*"],
    python_requires=meta["python_requires"],
    install_requires=lines(config["requirements"]["core"]),
    extras_require={name: lines(packages) for name, packages in config["extras"].items()},
    entry_points={"console_scripts": lines(meta["console_scripts"])},
    packages=find_packages(include=["cantolyric", "cantolyric.*"]),
    package_data={"cantolyric": ["assets/**", "py.typed"]},
)
