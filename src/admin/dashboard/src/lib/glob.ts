// Patterns for IDs. The server alone says whether one is right; the page only guesses whether what
// it hears of a client may concern what it shows.

/** A text without a pattern in it is looked for anywhere in the ID. */
export function globOfSearch(text: string): string {
    const trimmed = text.trim();

    return trimmed === "" || /[*?[]/.test(trimmed) ? trimmed : `*${trimmed}*`;
}

/** When in doubt it matches: then the list is asked for once too often. */
export function matcherOf(glob: string): (cid: string) => boolean {
    const source = glob.replace(/\[[!^]?\]?[^\]]*\]|[*?]|[^*?[]+|\[/g, (part) => {
        if (part === "*")
            return ".*";
        if (part === "?" || part.length > 2 && part.startsWith("[") && part.endsWith("]"))
            return ".";
        return part.replace(/[.+^${}()|\\[\]]/g, "\\$&");
    });
    const pattern = new RegExp(`^${source}$`);

    return (cid) => glob === "" || pattern.test(cid);
}

/** IDs and patterns as people write them down: by commas, blanks or lines. */
export function globsOf(text: string): string[] {
    return text.split(/[\s,]+/).filter((glob) => glob !== "");
}
