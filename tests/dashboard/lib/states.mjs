// The main states of the page, one after the other, for everything that wants to look at each.
import { GOES, STAYS } from "./programs.mjs";
import { until } from "./wait.mjs";

/** The bench needs a server that may go away: {allowed: {away: true}}. */
export async function eachState(bench, view, look) {
    await view.tokenField.waitFor();
    await look("token form");
    await view.tokenField.fill("guess");
    await view.button("Open").click();
    await view.alert.waitFor();
    await look("wrong token");
    await view.enter();
    await view.row("web-1").waitFor();
    await until(async () => await view.figure("Loop lag") !== "–", "two looks at the server");
    await look("live");

    await clientStates(view, look);
    await orderStates(view, look);
    await bench.server.stop("SIGKILL");
    await view.says(/^Server away/, 20);
    await look("server away");
}

/** A few machines for it: some go when they are told, one stays, and one is not there. */
export async function stateFleet(bench) {
    await bench.agent("web-1", GOES);
    await bench.agent("web-2", STAYS);
    await bench.agent("db-1", GOES);
    const gone = await bench.agent("nas-7");
    await gone.stop();
}

async function clientStates(view, look) {
    const dialog = await view.openClient("web-1");

    await dialog.getByRole("button", { name: "Ping" }).click();
    await dialog.getByText(/It answered/).waitFor();
    await look("client");
    await dialog.getByRole("button", { name: "Disconnect" }).click();
    await look("client, asked");
    await dialog.getByRole("button", { name: "Close" }).click();
}

async function orderStates(view, look) {
    let dialog = await view.openShutdown();

    await dialog.getByRole("button", { name: "Who would be told?" }).click();
    await dialog.getByRole("alert").filter({ hasText: /\S/ }).waitFor();
    await look("shutdown, to choose");
    await dialog.getByRole("button", { name: "Close" }).click();
    dialog = await view.dryRun(["web-*", "db-*"], { grace: "60s" });
    await look("shutdown, to confirm");
    await view.confirm(dialog, 3);
    await dialog.waitFor({ state: "hidden" });
    await view.region("Shutdown order").getByText(/Still up: 1/).waitFor();
    await look("order running");

    await view.region("Shutdown order").getByRole("button", { name: "Cancel order" }).click();
    dialog = view.page.getByRole("dialog", { name: /Cancel/ });
    await dialog.waitFor();
    await look("order, to cancel");
    await dialog.getByRole("button", { name: /^Yes/ }).click();
    await dialog.waitFor({ state: "hidden" });
    await view.region("Shutdown order").getByText(/was cancelled/).waitFor();
    await look("order cancelled");
}
