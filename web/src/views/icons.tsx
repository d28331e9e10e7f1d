/** The page's few drawings. All are decoration: what they mean is said in words beside them. */
import type { ComponentChildren, JSX } from 'preact'

function Drawing({ children, size = 20 }: { children: ComponentChildren; size?: number }): JSX.Element {
  return (
    <svg
      class="icon"
      width={size}
      height={size}
      viewBox="0 0 20 20"
      fill="none"
      stroke="currentColor"
      stroke-width="1.6"
      stroke-linecap="round"
      stroke-linejoin="round"
      aria-hidden="true"
    >
      {children}
    </svg>
  )
}

export const Icon = {
  Menu: () => (
    <Drawing>
      <path d="M3 6h14M3 10h14M3 14h9" />
    </Drawing>
  ),
  Plus: () => (
    <Drawing>
      <path d="M10 4v12M4 10h12" />
    </Drawing>
  ),
  Close: () => (
    <Drawing>
      <path d="m5 5 10 10M15 5 5 15" />
    </Drawing>
  ),
  Send: () => (
    <Drawing>
      <path d="M10 16V4M5 9l5-5 5 5" />
    </Drawing>
  ),
  Stop: () => (
    <Drawing>
      <rect x="5.5" y="5.5" width="9" height="9" rx="1.5" fill="currentColor" stroke="none" />
    </Drawing>
  ),
  Copy: () => (
    <Drawing size={17}>
      <rect x="7" y="7" width="9.5" height="9.5" rx="2" />
      <path d="M13 7V5.5a2 2 0 0 0-2-2H5.500a2 2 0 0 0-2 2V11a2 2 0 0 0 2 2H7" />
    </Drawing>
  ),
  Check: () => (
    <Drawing size={17}>
      <path d="m4 10.500 4 4 8-9" />
    </Drawing>
  ),
  Again: () => (
    <Drawing size={17}>
      <path d="M16 10a6 6 0 1 1-1.800-4.300L16 7.500M16 3.500v4h-4" />
    </Drawing>
  ),
  Edit: () => (
    <Drawing size={17}>
      <path d="M4 16h3l8.500-8.500a2.100 2.100 0 0 0-3-3L4 13z" />
    </Drawing>
  ),
  Bin: () => (
    <Drawing size={17}>
      <path d="M4 6h12M8 6V4h4v2M6 6l.7 10h6.600L14 6" />
    </Drawing>
  ),
  Picture: () => (
    <Drawing>
      <rect x="3" y="4" width="14" height="12" rx="2" />
      <circle cx="7.500" cy="8.500" r="1.300" />
      <path d="m4 14 4-3.500 2.500 2 3-3L17 13" />
    </Drawing>
  ),
  Tune: () => (
    <Drawing>
      <path d="M4 6h6M14 6h2M4 14h2M10 14h6" />
      <circle cx="12" cy="6" r="2" />
      <circle cx="8" cy="14" r="2" />
    </Drawing>
  ),
  Down: () => (
    <Drawing>
      <path d="M10 4v12M5 11l5 5 5-5" />
    </Drawing>
  ),
  Warn: () => (
    <Drawing>
      <path d="M10 3.500 17.500 16h-15zM10 8.500v3.500M10 14.200v.1" />
    </Drawing>
  ),
  Lock: () => (
    <Drawing size={16}>
      <rect x="4.500" y="9" width="11" height="7.500" rx="2" />
      <path d="M7 9V6.500a3 3 0 0 1 6 0V9" />
    </Drawing>
  ),
}
