// Reads server-sent events, as HTML's standard has them, from pieces of any size.

export interface ServerEvent {
    id: string;
    name: string;
    data: string;
}

export class EventReader {
    private rest = "";
    private id = "";
    private name = "";
    private data: string[] = [];

    /** The events that this piece completes. */
    take(piece: string): ServerEvent[] {
        const events: ServerEvent[] = [];
        const lines = (this.rest + piece).split("\n");

        this.rest = lines.pop() ?? "";
        for (const line of lines)
            this.takeLine(line.endsWith("\r") ? line.slice(0, -1) : line, events);
        return events;
    }

    private takeLine(line: string, events: ServerEvent[]): void {
        if (line === "") {
            if (this.data.length > 0)
                events.push({ id: this.id, name: this.name || "message", data: this.data.join("\n") });
            this.name = "";
            this.data = [];
            return;
        }
        const colon = line.indexOf(":");
        const field = colon < 0 ? line : line.slice(0, colon);
        const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");

        // A line that begins with a colon is a comment: its field is empty.
        if (field === "id")
            this.id = value;
        else if (field === "event")
            this.name = value;
        else if (field === "data")
            this.data.push(value);
    }
}
