// What the protocol's words mean to people. docs/protocol.md and docs/configuration.md have the
// whole story.

export const refusalMeanings: Readonly<Record<string, string>> = {
    400: "protocol error",
    408: "timed out",
    410: "wrong password",
    420: "invalid ID",
    421: "ID already connected",
    422: "ID not allowed for this password",
    429: "too many from one address",
    430: "disconnected by an operator",
    431: "replaced by a newer session",
    450: "server full",
    451: "registry unavailable",
    460: "server restarting",
};

export const reasonMeanings: Readonly<Record<string, string>> = {
    left: "it closed the connection",
    reset: "the connection broke",
    shutdown: "it left after it was told to shut down",
    timed_out: "it did not answer in time",
    protocol: "it did not follow the protocol",
    operator: "an operator disconnected it",
    replaced: "a newer session with its ID took its place",
    restarting: "the server was restarted",
    slow: "it did not read what was sent",
    tls: "its TLS was not allowed, or none",
    resources: "the server was out of memory",
    stopped: "the server was stopped",
    crash: "the server had ended without a word",
};

export const targetMeanings: Readonly<Record<string, string>> = {
    told: "told, has not answered",
    acknowledged: "acknowledged, still connected",
    still_up: "still up although its wave is over",
};
