import { render } from "preact";

import { App } from "./parts/app";
import { begin } from "./state/access";
import { watchFleet } from "./state/fleet";
import { watchOrder } from "./state/order";
import { keepTitle } from "./state/title";

const page = document.getElementById("page")!;

watchOrder();
watchFleet();
keepTitle();
begin();
page.replaceChildren();
render(<App />, page);
