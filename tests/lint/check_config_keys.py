#!/usr/bin/python3
"""
Checks that every configuration key is in the table (src/main/config.c), in cliser.ini with a
comment right above it, and in docs/configuration.md; and that none has one that the others lack.

cliser.ini may show a key switched off, as ";key = value", and a section, as ";[section NAME]". What
stands behind a section's first word is a name of the operator's. In docs/configuration.md a section
begins with a heading that has `[section]` in it, and its keys stand in `code`: in the first cell of
tables whose first column is "key", or at the beginning of list items or headings. The agent's table
is compared with the section `[agent]` of that page, if it has one.
"""

import re

import lint

TABLE = "src/main/config.c"
AGENT_TABLE = "client/agent_config.c"
INI = "cliser.ini"
DOCS = "docs/configuration.md"

ROW = re.compile(r'\{\s*("?)(\w+)\1\s*,\s*"(\w+)"\s*,\s*SETTING_\w+')
INI_KEY = re.compile(r"([;#] ?)?([a-z][a-z0-9_]*) ?=")
DOCS_HEADING = re.compile(r"#+ .*`?\[(\w+)(?: \w+)?\]`?")
CODE = re.compile(r"`([a-z][a-z0-9_]*)`")


def table_keys(path):
    """The keys of a table of settings: a set of (section, key)."""
    if not path.is_file():
        return set()
    text = path.read_text()
    macros = dict(re.findall(r'^#define (\w+)\s+"(\w+)"', text, re.MULTILINE))
    return {(name if quote else macros.get(name, name), key)
            for quote, name, key in ROW.findall(text)}


def ini_keys(text, complaints):
    """The keys that the file shows; complains about each without a comment."""
    keys = set()
    section = ""
    above = ""
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(r";?\[(\w+)[^\]]*\]", line)
        key = INI_KEY.match(line)
        if header:
            section = header[1]
        elif key:
            keys.add((section, key[2]))
            if not re.match(r"[;#]", above) or INI_KEY.match(above):
                complaints.append(f"{INI}:{number}: {key[2]} has no comment line right above it")
        above = line
    return keys


def docs_keys(text):
    keys = set()
    section = None
    in_table = False
    for line in text.splitlines():
        if not line.startswith("|"):
            in_table = False
        elif line.split("|")[1].strip() == "key":
            in_table = True
        heading = DOCS_HEADING.match(line)
        if heading:
            section = heading[1]
        elif re.match(r"#{1,2} ", line):
            section = None
        if not section:
            continue
        names = []
        if in_table:
            names = CODE.findall(line.split("|")[1])
        elif re.match(r"#+ `", line) and not heading:
            names = CODE.findall(line)
        elif re.match(r"[-*] `", line):
            names = CODE.findall(line)[:1]
        keys |= {(section, name) for name in names}
    return keys


def compare(where, found, wanted, complaints):
    for section, key in sorted(wanted - found):
        complaints.append(f"{where}: [{section}] {key} is missing")
    for section, key in sorted(found - wanted):
        complaints.append(f"{where}: [{section}] {key} is in no table")


def check(root):
    complaints = []
    keys = table_keys(root / TABLE)
    if not keys:
        return [f"{TABLE}: has no rows that look like {{\"section\", \"key\", SETTING_…"]
    for name in (INI, DOCS):
        if not (root / name).is_file():
            complaints.append(f"{name}: is missing")
    if complaints:
        return complaints

    compare(INI, ini_keys((root / INI).read_text(), complaints), keys, complaints)
    documented = docs_keys((root / DOCS).read_text())
    agents = {pair for pair in documented if pair[0] == "agent"}
    compare(DOCS, documented - agents, keys, complaints)
    if agents:
        compare(DOCS, agents, table_keys(root / AGENT_TABLE), complaints)
    return complaints


GOOD = {
    TABLE: 'const struct setting n[] = {{"credential", "ids", SETTING_LIST, AT(ids)}};\n'
           'const struct setting t[] = {\n    {"server", "listen", SETTING_LIST, AT(listen)},\n'
           '    {"server", "user",\n     SETTING_TEXT, AT(user)},\n'
           '    {"log", "level", SETTING_CHOICE, AT(level)},\n};\n',
    AGENT_TABLE: '#define SECTION "agent"\n  [KEY_ID] = {SECTION, "id", SETTING_TEXT, AT(id)},\n',
    INI: "; A sample.\n\n[server]\n; where\nlisten = 127.0.0.1:1\n; who\n;user = x\n\n[log]\n"
         "; how much\nlevel = info\n\n;[credential web]\n; which\n;ids = web-*\n",
    DOCS: "# Configuration\n## `[server]`\n| key | default |\n| `listen`, `user` | `x` |\n"
          "## `[log]`\nIts `words` in text.\n- `level`: `info`\n"
          "## `[credential NAME]`\n- `ids`: `*`\n"
          "## The agent: `[agent]`\n### `id`\n## Else\n| `other` | x |\n",
}


def broken(path, old, new):
    assert old in GOOD[path]
    return {**GOOD, path: GOOD[path].replace(old, new)}


SAMPLES = [
    ("keys in order", GOOD, None),
    ("another table beside the keys",
     broken(DOCS, "## `[log]`\n", "\n| column |\n| `sid` |\n## `[log]`\n"),
     None),
    ("a page without the agent", broken(DOCS, "## The agent: `[agent]`\n### `id`\n", ""), None),
    ("a key that is not in the ini", broken(INI, "; who\n;user = x\n", ""),
     "cliser.ini: [server] user is missing"),
    ("a key that is in another section of the ini", broken(INI, "[log]\n", ""),
     "cliser.ini: [log] level is missing"),
    ("a stray key in the ini", broken(INI, "; who\n", "; what\nnew = 1\n; who\n"),
     "cliser.ini: [server] new is in no table"),
    ("a stray key in the ini, switched off", broken(INI, "; who\n", "; what\n;new = 1\n; who\n"),
     "cliser.ini: [server] new is in no table"),
    ("a key of a section with a name that is not in the ini",
     broken(INI, ";ids = web-*\n", ""), "cliser.ini: [credential] ids is missing"),
    ("a key of a section with a name that is not documented", broken(DOCS, "- `ids`: `*`\n", ""),
     "configuration.md: [credential] ids is missing"),
    ("a key without a comment", broken(INI, "; how much\n", ""), "level has no comment"),
    ("a comment that is not right above", broken(INI, "; how much\n", "; how much\n\n"),
     "level has no comment"),
    ("a key under another one's comment", broken(INI, "; who\n", ""), "user has no comment"),
    ("a key that is not documented", broken(DOCS, "`listen`, `user`", "`listen`"),
     "configuration.md: [server] user is missing"),
    ("a stray key in a table of the docs", broken(DOCS, "`user` |", "`user`, `new` |"),
     "configuration.md: [server] new is in no table"),
    ("a stray key in a list of the docs", broken(DOCS, "- `level`", "- `new`\n- `level`"),
     "configuration.md: [log] new is in no table"),
    ("a key that is documented in another section", broken(DOCS, "## `[log]`\n", ""),
     "configuration.md: [log] level is missing"),
    ("a stray key of the agent", broken(DOCS, "### `id`\n", "### `id`\n### `new`\n"),
     "configuration.md: [agent] new is in no table"),
    ("a key of the agent that is not documented", broken(AGENT_TABLE, "  [KEY_ID]",
     '  {SECTION, "once", SETTING_BOOL},\n  [KEY_ID]'), "[agent] once is missing"),
    ("no table", broken(TABLE, "SETTING_", "OTHER_"), "has no rows"),
    ("no ini", {path: text for path, text in GOOD.items() if path != INI}, "ini: is missing"),
]

if __name__ == "__main__":
    lint.main("config_keys", check, SAMPLES)
