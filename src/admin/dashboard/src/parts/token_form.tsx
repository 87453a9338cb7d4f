// Asks for the token.
import { useEffect, useRef, useState } from "preact/hooks";

import { enter, type Access } from "../state/access";

export function TokenForm({ state }: { state: Access & { kind: "asking" } }) {
    const [token, setToken] = useState("");
    const field = useRef<HTMLInputElement>(null);

    useEffect(() => field.current!.focus(), []);

    function submit(event: Event): void {
        event.preventDefault();
        if (token.trim() !== "" && !state.busy)
            void enter(token.trim());
        field.current!.focus();
    }

    return (
        <main class="entrance">
            <h1>cliser</h1>
            <form onSubmit={submit}>
                <label for="token">Token</label>
                <input id="token" ref={field} type="password" autocomplete="off" required
                       value={token} onInput={(event) => setToken(event.currentTarget.value)}
                       aria-describedby="token-hint token-message" aria-invalid={state.message !== null} />
                <p id="token-hint" class="hint">
                    The first line of the server's token file. It is kept until this tab is closed.
                </p>
                <p id="token-message" class="problem" role="alert">{state.message}</p>
                <button type="submit" class="main">Open</button>
            </form>
        </main>
    );
}
