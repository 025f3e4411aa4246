# What `cmake --install` puts where, component mount-oci: the tool, its names for mount(8), its manual, its
# completions, and what systemd and udev read. debian/rules and CPack install the same.
install(TARGETS mount-oci RUNTIME COMPONENT mount-oci)
install(DIRECTORY ${mount_oci_documents}/man/ DESTINATION ${CMAKE_INSTALL_MANDIR} COMPONENT mount-oci)
install(FILES ${mount_oci_documents}/mount-oci.bash
        DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions RENAME mount-oci
        COMPONENT mount-oci)
install(FILES ${mount_oci_documents}/_mount-oci
        DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/vendor-completions COMPONENT mount-oci)
install(FILES ${mount_oci_documents}/mount-oci.fish
        DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d COMPONENT mount-oci)

set(files example/mount-oci)
install(FILES ${files}/mount-oci@.service DESTINATION lib/systemd/system COMPONENT mount-oci)
install(FILES ${files}/mount-oci.sysusers DESTINATION lib/sysusers.d RENAME mount-oci.conf
        COMPONENT mount-oci)
install(FILES ${files}/mount-oci.tmpfiles DESTINATION lib/tmpfiles.d RENAME mount-oci.conf
        COMPONENT mount-oci)
install(FILES ${files}/59-mount-oci.rules DESTINATION lib/udev/rules.d COMPONENT mount-oci)
install(FILES debian/copyright README.md SECURITY.md DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/mount-oci
        COMPONENT mount-oci)

# mount(8) looks in /sbin alone. The configuration file of a program in /usr is in /etc.
install(
  CODE "
    set(bin \"\$ENV{DESTDIR}\${CMAKE_INSTALL_PREFIX}/${CMAKE_INSTALL_SBINDIR}\")
    set(man \"\$ENV{DESTDIR}\${CMAKE_INSTALL_PREFIX}/${CMAKE_INSTALL_MANDIR}/man8\")
    file(MAKE_DIRECTORY \${bin})
    foreach(type nbd fuse)
      file(CREATE_LINK ../${CMAKE_INSTALL_BINDIR}/mount-oci \${bin}/mount.erofs.\${type} SYMBOLIC)
    endforeach()
    file(CREATE_LINK mount.erofs.nbd.8.gz \${man}/mount.erofs.fuse.8.gz SYMBOLIC)
    set(etc \"\${CMAKE_INSTALL_PREFIX}/etc\")
    cmake_path(GET CMAKE_INSTALL_PREFIX FILENAME last)
    if(last STREQUAL usr)
      cmake_path(GET CMAKE_INSTALL_PREFIX PARENT_PATH etc)
      cmake_path(APPEND etc etc)
    endif()
    file(INSTALL \"${mount_oci_documents}/mount-oci.conf\" DESTINATION \"\${etc}\")"
  COMPONENT mount-oci)
