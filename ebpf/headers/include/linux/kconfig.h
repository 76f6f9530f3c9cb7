/* BCC refuses to compile without this option; loading says whether the running kernel really has it. */
#define CONFIG_BPF_SYSCALL 1
