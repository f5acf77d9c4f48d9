"""What MkDocs is told beyond mkdocs.yml: pages for what lies outside docs/, and a reference.

Pages link to examples, benchmarks and the README by paths that hold in the repository. For each
file that is linked to, and for what that links to in turn, the site gets a page below `source/`,
and the links lead there. The reference is a page for each group of names of the package's face.
"""

import importlib
import json
import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"(\]\()([^)#:\s]+)(#[^)]*)?\)")
FENCE = {".py": "python", ".toml": "toml", ".yml": "yaml"}
PICTURES = (".png", ".svg")
GROUP = re.compile(r"^    # (.+)$|^    \"(\w+)\": \"([\w.:]+)\",$", re.MULTILINE)


def repository_path(page: str) -> str:
    """Return where in the repository a page of the site was written."""
    if page.startswith("source/"):
        path = page.removeprefix("source/")
        # A page made of a program or a folder has the ending .md on top of its name.
        return path if (ROOT / path).exists() else path.removesuffix(".md")
    return f"docs/{page}"


def site_path(path: str) -> str:
    """Return the page, or picture, of the site for a file of the repository."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if (ROOT / path).is_dir():
        return f"source/{path}/README.md"
    return f"source/{path}" if path.endswith((".md", *PICTURES)) else f"source/{path}.md"


def targets(text: str, path: str) -> list[str]:
    """Return the files of the repository that a page written at `path` links to."""
    base = posixpath.dirname(path)
    found = [posixpath.normpath(posixpath.join(base, link[2])) for link in LINK.finditer(text)]
    return [target for target in found if (ROOT / target).exists()]


def moved(text: str, page: str) -> str:
    """Let the links of a page lead to pages of the site."""
    base = posixpath.dirname(repository_path(page))
    here = posixpath.dirname(page)

    def turned(link: re.Match) -> str:
        target = posixpath.normpath(posixpath.join(base, link[2]))
        if not (ROOT / target).exists():
            return link[0]
        return f"{link[1]}{posixpath.relpath(site_path(target), here or '.')}{link[3] or ''})"

    return LINK.sub(turned, text)


def shown(path: str) -> str:
    """Return the page for a file or folder outside docs/."""
    file = ROOT / path
    if file.is_dir():
        readme = file / "README.md"
        if readme.exists():
            return readme.read_text("utf-8")
        names = sorted(each.name for each in file.iterdir() if each.suffix in (".py", ".md"))
        return f"# {path}\n\n" + "\n".join(f"- [{name}]({name})" for name in names)
    text = file.read_text("utf-8")
    if file.suffix == ".md":
        return text
    if file.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        return "\n\n".join(_cell(cell["cell_type"], "".join(cell["source"])) for cell in cells)
    return f"# {path}\n\n````{FENCE.get(file.suffix, 'text')}\n{text}````\n"


def _cell(kind: str, text: str) -> str:
    return text if kind == "markdown" else f"```python\n{text}\n```"


def groups() -> dict[str, dict[str, str]]:
    """Return the names of the package's face and their homes, by the heading above them."""
    face = (ROOT / "folkmoot" / "__init__.py").read_text("utf-8")
    table = face.partition("_HOMES = {")[2].partition("\n}")[0]
    found: dict[str, dict[str, str]] = {}
    for heading, name, home in GROUP.findall(table):
        if heading:
            group = found.setdefault(heading, {})
        else:
            group[name] = home.replace(":", ".")
    return found


def reference() -> dict[str, str]:
    """Return the pages of the reference: one for each group of names, and for each room."""
    pages: dict[str, str] = {}
    lines = [
        "# Reference",
        "",
        "All that stands in `import folkmoot as fm`, by what it is for.",
        "",
    ]
    seen: dict[str, str] = {}
    by_group = groups()
    rooms = by_group.pop("Rooms")
    for heading, names in by_group.items():
        page = f"{heading.lower().replace(' ', '-')}.md"
        pages[f"reference/{page}"] = _listing(heading, names, page, seen)
        lines.append(f"- [{heading}]({page}): {', '.join(f'`fm.{name}`' for name in names)}")
    for room, home in {**rooms, "algorithms": "folkmoot.algorithms"}.items():
        page = f"{room}.md"
        pages[f"reference/{page}"] = _listing(f"fm.{room}", _room(home), page, seen)
        lines.append(f"- [`fm.{room}`]({page})")
    return {"reference/index.md": "\n".join(lines), **pages}


def _room(home: str) -> dict[str, str]:
    """Return the public names of a module and where each is defined."""
    module = importlib.import_module(home)
    listed = getattr(module, "__all__", None)
    found = {}
    for name in listed or sorted(vars(module)):
        value = getattr(module, name)
        where = getattr(value, "__module__", None) or ""
        # Without a list of its own, a module's names are those that it defines.
        ours = where.startswith("folkmoot") if listed else where == home
        if ours and callable(value) and not name.startswith("_"):
            found[name] = f"{where}.{getattr(value, '__qualname__', name)}"
    return found


def _listing(title: str, names: dict[str, str], page: str, seen: dict[str, str]) -> str:
    """Return a page on some names; what another page has is named with a link to that."""
    blocks = [f"# {title}"]
    for name, home in names.items():
        where = seen.setdefault(home, page)
        blocks.append(f"::: {home}" if where == page else f"- [`{name}`]({where})")
    return "\n\n".join(blocks) + "\n"


def on_config(config):
    """Name the pages of a folder in the navigation, and put the reference there."""
    docs = Path(config.docs_dir)
    for section in config.nav:
        for title, pages in section.items():
            if isinstance(pages, str) and pages.endswith("/"):
                found = sorted(
                    page.relative_to(docs).as_posix() for page in docs.glob(f"{pages}*.md")
                )
                section[title] = sorted(found, key=lambda page: not page.endswith("README.md"))
    config.nav.append({"Reference": list(reference())})
    return config


def on_files(files, config):
    """Add the pages of the reference, and those for what lies outside docs/."""
    for page, text in reference().items():
        files.append(File.generated(config, page, content=text))
    waiting, known = [], set()
    for file in list(files.documentation_pages()):
        if (ROOT / "docs" / file.src_uri).exists():
            waiting += targets(file.content_string, f"docs/{file.src_uri}")
    while waiting:
        path = waiting.pop()
        if path.startswith("docs/") or path in known:
            continue
        known.add(path)
        page = site_path(path)
        if page.endswith(PICTURES):
            files.append(File.generated(config, page, abs_src_path=str(ROOT / path)))
            continue
        if files.get_file_from_path(page):
            continue
        text = shown(path)
        files.append(File.generated(config, page, content=text))
        if page.endswith("README.md") or path.endswith(".md"):
            waiting += targets(text, repository_path(page))
    return files


def on_page_markdown(markdown, page, config, files):
    """Turn links, and take away what is said to the tests."""
    markdown = markdown.replace("```python no-run", "```python")
    if page.file.src_uri.startswith("reference/"):
        return markdown
    return moved(markdown, page.file.src_uri)
