// A modal dialog as the browser has it: it keeps the focus inside, closes by Escape, and gives the
// focus back to where it was.
import type { ComponentChildren } from "preact";
import { useLayoutEffect, useRef } from "preact/hooks";

interface DialogProps {
    titleId: string;
    class?: string;
    onClose: () => void;
    /** While something must not be interrupted, Escape does nothing. */
    mayClose?: boolean;
    children: ComponentChildren;
}

export function Dialog({ titleId, class: name, onClose, mayClose = true, children }: DialogProps) {
    const ref = useRef<HTMLDialogElement>(null);

    useLayoutEffect(() => {
        const dialog = ref.current!;

        dialog.showModal();
        return () => dialog.close();
    }, []);

    function cancelled(event: Event): void {
        event.preventDefault();
        if (mayClose)
            onClose();
    }

    /** Browsers close it at the second Escape, whatever was said to the first one. */
    function closed(): void {
        if (!ref.current)
            return;
        if (mayClose)
            onClose();
        else
            ref.current.showModal();
    }

    return (
        <dialog ref={ref} class={name} aria-labelledby={titleId} onCancel={cancelled} onClose={closed}>
            {children}
        </dialog>
    );
}
