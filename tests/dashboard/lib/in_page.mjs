// What runs in the page itself, beside its own script: where something is timed, the way to node
// and back would be part of the time. The other modules find it there as inPage.

/** The value of the term of a list, as it is written. */
function figure(region, term) {
    for (const dt of region.querySelectorAll("dt")) {
        if (dt.textContent.trim() === term)
            return dt.nextElementSibling.textContent.trim();
    }
    return null;
}

/** The first cell of each row of the table. */
function ids(table) {
    return [...table.tBodies[0].rows].map((row) => row.cells[0].textContent.trim());
}

function status(table, id) {
    const row = [...table.tBodies[0].rows].find(({ cells }) => cells[0].textContent.trim() === id);

    return row?.cells[1].textContent.trim() ?? null;
}

/**
 * Asks the question at each change below the element. The promise of the moment at which the answer
 * was true is inside an object, or whoever evaluates this would wait for it.
 */
function waiting(element, question) {
    return { moment: new Promise((resolve) => {
        const observer = new MutationObserver(() => {
            if (!question())
                return;
            observer.disconnect();
            resolve(Date.now());
        });
        observer.observe(element,
            { subtree: true, childList: true, characterData: true, attributes: true });
    }) };
}

function nextKey(element) {
    return { moment: new Promise((resolve) => {
        element.addEventListener("keydown", () => resolve(Date.now()), { once: true });
    }) };
}

/** Everything that the element will have said from now on, as read() reads it. */
function recording(element, read) {
    const values = [read()];

    new MutationObserver(() => {
        const value = read();
        if (value !== values.at(-1))
            values.push(value);
    }).observe(element, { subtree: true, childList: true, characterData: true });
    return values;
}

/** Milliseconds since this page was asked for, when the figure is there. */
function firstNumber(term) {
    return new Promise((resolve) => {
        const look = () => {
            if (/\d/.test(inPage.figure(document, term) ?? ""))
                resolve(performance.now());
            else
                requestAnimationFrame(look);
        };
        look();
    });
}

/** What has the focus and does not look so, or null. The page as a whole need not. */
function focusWithoutMark() {
    const element = document.activeElement;

    if (element === document.body)
        return null;
    const { outlineStyle, outlineWidth, boxShadow } = getComputedStyle(element);
    const isOutlined = outlineStyle !== "none" && parseFloat(outlineWidth) > 0;
    return isOutlined || boxShadow !== "none" ? null : element.outerHTML.slice(0, 200);
}

/**
 * Texts that are seen in part only: what is inside is wider than its element, which cuts it off.
 * Where one can scroll to the rest is not counted, nor what is there for screen readers alone.
 */
function cutOff() {
    const isCutting = (element) => {
        const { overflowX, clipPath, position } = getComputedStyle(element);
        return (overflowX === "hidden" || overflowX === "clip") && clipPath === "none" &&
            !(position === "absolute" && element.clientWidth <= 1);
    };

    return [...document.querySelectorAll("body *")]
        .filter((element) => element.scrollWidth > element.clientWidth + 1 && isCutting(element))
        .map((element) => element.outerHTML.slice(0, 200));
}

function reportViolations() {
    document.addEventListener("securitypolicyviolation", (event) => {
        const { violatedDirective, blockedURI } = event;
        window.cliserViolation(`against the policy: ${violatedDirective} ${blockedURI}`);
    });
}

export const inPageScript = `window.inPage = {
    figure: ${figure}, ids: ${ids}, status: ${status},
    waiting: ${waiting}, nextKey: ${nextKey}, recording: ${recording},
    firstNumber: ${firstNumber}, focusWithoutMark: ${focusWithoutMark}, cutOff: ${cutOff},
};
(${reportViolations})();`;
